"""The commands of `larq-ext`, a file each: they read words, call the library and print.

TensorFlow takes seconds to import, so a command imports it, and what needs it, when it runs: no
help waits for it. The front of all rooms, this package reaches up to zoo and recipes.
"""
