"""Metadata and dependencies. The build backend and the tools are set in `pyproject.toml`."""

import os
import pathlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "larq_ext" / "_version.py").read_text()).group(
    1
)

# `zoo/` and `recipes/` are installed under sibling names of `larq_ext`, as the Larq family
# does it: bare `zoo` and `recipes` in site-packages would collide with other people's.
FOLDERS = {"larq_ext": "larq_ext", "larq_ext_zoo": "zoo", "larq_ext_recipes": "recipes"}
PACKAGES = [
    name
    for package, folder in FOLDERS.items()
    for name in [package, *(f"{package}.{sub}" for sub in find_packages(folder))]
]

# Machines with LCE wheels of one kind; on Macs they depend on the version of the system.
X86 = "platform_machine in 'x86_64 AMD64'"

# The upper bounds are those of larq and its relatives; `etils` and `tensorflow-metadata` are
# named because old versions of pip otherwise walk back through their releases for minutes.
CORE = [
    "tensorflow>=2.17,<2.20",
    "tf_keras>=2.17,<2.20",
    # Older ones draw `randint(1, 1e9)` once seeded, which Python 3.12 refuses.
    "tf_keras>=2.19,<2.20; python_version >= '3.12'",
    "numpy>=1.26,<2",
    "protobuf>=3.20.3,<3.21",
    "larq>=0.14,<0.15",
    "click>=8.1",
    "rich>=13",
]
EXTRAS = {
    "deploy": [f"larq-compute-engine>=0.16,<0.17; {X86}"],
    "plots": ["matplotlib>=3.8"],
    "demo": ["scikit-learn>=1.4"],
    "images": ["pillow>=10"],
    "train": [
        "zookeeper>=1.4,<1.5",
        "tensorflow-datasets>=4.8.3,<4.9",
        "tensorflow-metadata<1.15",
        "etils<1.14",
    ],
    "zoo": ["larq-zoo>=2.4,<2.5", "tensorflow-metadata<1.15", "etils<1.14"],
    "recipes": [
        "keras-cv>=0.9,<0.10",
        "tensorboard",
        "setuptools<81",  # the `tensorboard` command needs pkg_resources
    ],
    # The newest ones that take the protobuf above; tf2onnx 1.17 installs a package named `tests`.
    "onnx": ["tf2onnx>=1.16.1,<1.17", "onnx>=1.16,<1.18", "onnxruntime>=1.19,<1.27"],
    "pose": ["pycocotools>=2.0.7"],
    "docs": ["mkdocs>=1.6", "mkdocs-material>=9"],
    "test": ["pytest>=8", "pytest-xdist>=3", "safetensors>=0.4", "ruff>=0.6", "mypy>=1.11"],
}
# A plain install runs the main job: train, prove binary, draw, predict.
INSTALL = (
    CORE + EXTRAS["train"] + EXTRAS["deploy"] + EXTRAS["plots"] + EXTRAS["demo"] + EXTRAS["images"]
)
EXTRAS["test"] += EXTRAS["zoo"] + EXTRAS["recipes"] + EXTRAS["onnx"] + EXTRAS["pose"]
# It brings what no package of Google's does: TensorFlow Lite's C library, for examples/cpp.
EXTRAS["test"] += ["pymicro-wakeword>=2.5,<3; sys_platform == 'linux'"]
EXTRAS["all"] = sorted({line for lines in EXTRAS.values() for line in lines})

NATIVE = "larq_ext/runtime/native"
# No flags for an instruction set: the sources choose among theirs when they run.
FLAGS = ["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-pthread"]
DELEGATE = Extension(
    "larq_ext.runtime.liblarq_ext_delegate",
    sources=sorted(path.as_posix() for path in pathlib.Path(NATIVE).rglob("*.cc")),
    include_dirs=[NATIVE],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    # Without a compiler the rest is installed, and says so when it is used.
    optional=os.environ.get("LARQ_EXT_REQUIRE_NATIVE", "0") in ("", "0"),
)


class BuildDelegate(build_ext):
    """Builds a library that TensorFlow Lite loads; it is no Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        library = pathlib.Path(self.get_ext_fullpath(ext.name))
        library.unlink(missing_ok=True)  # what is left of an older build must not be installed
        if self.compiler.compiler_type == "msvc":
            raise CompileError("the native kernels need GCC or Clang")

        def compiled(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                include_dirs=ext.include_dirs,
                extra_preargs=ext.extra_compile_args,
            )

        with ThreadPoolExecutor(2) as pool:
            objects = [file for files in pool.map(compiled, ext.sources) for file in files]
        # Linked beside its place and moved: nobody ever loads half a library.
        unfinished = library.with_suffix(".tmp")
        self.compiler.link_shared_object(
            objects,
            str(unfinished),
            extra_postargs=ext.extra_link_args,
            target_lang="c++",
        )
        unfinished.replace(library)


class BuildPython(build_py):
    """Begins anew: what an older version left in the build folder must not be installed."""

    def run(self) -> None:
        if not self.editable_mode:
            for package in {name.partition(".")[0] for name in PACKAGES}:
                shutil.rmtree(pathlib.Path(self.build_lib, package), ignore_errors=True)
        super().run()


class WheelForAnyPython(bdist_wheel):
    """The library knows nothing of Python, so its wheel serves every version on its platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    name="larq-ext",
    version=VERSION,
    description="Quantizers, networks, recipes and proven deployment for binarized neural networks",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    package_dir=FOLDERS,
    packages=PACKAGES,
    package_data={
        "larq_ext": ["py.typed"],
        "larq_ext_zoo": [
            "entries/*.json",
            "entries/*.csv",
            "entries/*.png",
            "entries/*.safetensors",
        ],
    },
    ext_modules=[DELEGATE],
    cmdclass={
        "build_py": BuildPython,
        "build_ext": BuildDelegate,
        "bdist_wheel": WheelForAnyPython,
    },
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["larq-ext=larq_ext.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
