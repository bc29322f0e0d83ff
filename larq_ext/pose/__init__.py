"""Human poses: from a box in a picture to 17 keypoints, scored as COCO scores them.

Needs no TensorFlow to be imported: geometry, decoding and scoring are NumPy and Pillow.
"""
