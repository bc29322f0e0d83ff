"""ResNet-20 on CIFAR-10, an experiment for each method of binarization.

The comments say where a setting comes from: the paper, the authors' (or, where named, somebody
else's) code, or us.
"""

from larq_ext_recipes._experiment import Experiment
from larq_ext_recipes._registry import register

ResNet20FDA = register(
    Experiment(
        name="ResNet20FDA",
        description="ResNet-20 on CIFAR-10 with the Fourier gradient of FDA-BNN",
        network="ResNet20",
        quantizer="fda",
        optimizer="sgd",  # paper
        learning_rate=0.1,  # paper
        momentum=0.9,  # paper
        epochs=400,  # paper
        batch_size=128,  # paper
        weight_decay=1e-4,  # paper; sparing the binary kernels is ours
        schedule="cosine",  # third-party code; the paper does not say
    )
)

ResNet20LearnableScale = register(
    Experiment(
        name="ResNet20LearnableScale",
        description="ResNet-20 on CIFAR-10 with the learned scales of Trained Binarization",
        network="ResNet20",
        quantizer="learnable_scale",
        optimizer="adam",  # ours, as all that follows: the paper's training is not known
        learning_rate=1e-3,
        epochs=200,
        batch_size=128,
        schedule="cosine",
    )
)

ResNet20SiMaN = register(
    Experiment(
        name="ResNet20SiMaN",
        description="ResNet-20 on CIFAR-10 with the magnitude-based signs of SiMaN",
        network="ResNet20",
        quantizer="siman",
        optimizer="sgd",  # official code, as all that follows (the stem's ReLU is left out)
        learning_rate=0.1,
        momentum=0.9,
        epochs=400,
        batch_size=256,
        schedule="cosine",
        warmup_epochs=5,
        weight_decay=5e-4,
        decay_norm_and_bias=True,
        seed=123,
    )
)

ResNet20MLPClassifier = register(
    Experiment(
        name="ResNet20MLPClassifier",
        description="ResNet-20 on CIFAR-10 with weights binarized by a small learned classifier",
        network="ResNet20",
        quantizer="mlp_classifier",
        optimizer="adam",  # official code for ImageNet; nothing is known for CIFAR-10
        learning_rate=2.5e-3,  # official code for ImageNet; there 1e-3 for the classifier itself
        schedule="linear",  # official code for ImageNet, whose rate falls an epoch earlier
        epochs=200,  # ours
        batch_size=128,  # ours
    )
)

ResNet20SteSign = register(
    Experiment(
        name="ResNet20SteSign",
        description="ResNet-20 on CIFAR-10 with Larq's straight-through estimator, the baseline",
        network="ResNet20",
        quantizer="ste_sign",
        optimizer="adam",  # ours, as all that follows
        learning_rate=1e-3,
        epochs=200,
        batch_size=128,
        schedule="cosine",
    )
)
