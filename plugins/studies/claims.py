"""The nine claims of the studies that this project follows, each with the control that its paper lacks.

A claim is a list of contrasts that must all hold. Where a paper says "some", the contrasts of which one must hold are
in `any_of`, and their intervals pay for the choice among them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from evidence import Contrast, Network, Term

from robustgate.core.benchmark import BENCHMARK_CORRUPTIONS

CLEAN = ("clean",)
CORRUPTED = tuple(f"{name}_s3" for name in BENCHMARK_CORRUPTIONS)
JPEG = ("cifar10_to_jpeg75",)
TINY = ("cifar10_to_tinyimagenet",)
ATTACKED = ("pgd", "square")
# A network that loses less than this is called as robust as before.
MARGIN = 0.01
OFFICE = ("amazon", "webcam", "dslr")


def cifar(compression: str, model: str = "resnet20") -> Network:
    """Return a network of CIFAR-10."""
    return Network("cifar10", model, "cifar10", compression)


def hundred(compression: str, model: str = "resnet8") -> Network:
    """Return a network of CIFAR-100."""
    return Network("cifar100", model, "cifar100", compression)


def digits(compression: str) -> Network:
    """Return a network of MNIST."""
    return Network("digits", "resnet8", "mnist", compression)


def office(source: str, compression: str) -> Network:
    """Return a network of Office's domains."""
    return Network("office", "mobilenet", source, compression)


REFERENCE, CONTROL = cifar("none"), cifar("control:half")
HALF, PHASES, UNIFORM, ADASAP = (cifar(name) for name in ("half", "half_phases", "half_uniform", "half_adasap"))
DISTILLED, DIRECT, INT8 = (cifar(name) for name in ("distilled", "direct", "int8"))
COMBINED = ("sparse_int8", "clustered_int8", "sparse_clustered_int8")


def difference(
    name: str,
    one: Network,
    other: Network,
    shifts: tuple[str, ...] = CORRUPTED,
    *,
    part: str = "whole",
    limit: float = 0.0,
    below: bool = False,
) -> Contrast:
    """Return the accuracy of one network less that of another."""
    return Contrast(name, (Term(1, one, shifts, part), Term(-1, other, shifts, part)), limit, below)


def excess(name: str, one: Network, other: Network, shifts: tuple[str, ...]) -> Contrast:
    """Return how much more of its accuracy one network keeps under shifts of the same images than another does."""
    terms = (Term(1, one, shifts), Term(-1, one, CLEAN), Term(-1, other, shifts), Term(1, other, CLEAN))
    return Contrast(name, terms, below=True)


def _original(contrast: Contrast) -> Network:
    """Return the uncompressed network of a contrast's first one."""
    return replace(contrast.terms[0].network, compression="none")


@dataclass(frozen=True)
class Claim:
    """What is claimed, by whom, against which control, and what must hold."""

    number: int
    title: str
    paper: str
    control: str
    would_change: str
    all_of: tuple[Contrast, ...] = ()
    any_of: tuple[Contrast, ...] = ()
    beside: tuple[Contrast, ...] = ()
    """What is told beside it and decides nothing."""

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """All of them."""
        return (*self.all_of, *self.any_of, *self.beside)


CLAIMS = (
    Claim(
        1,
        "Compressed networks are less robust to shift than their originals",
        "Shen et al. 2024, compressed networks for edge devices",
        "the uncompressed network with the same extra fine-tuning; what is lost beyond clean images decides nothing, "
        "since that rewards a network which has lost those already",
        "a compression that is trained on shifted images, or fine-tuning on more of the original training set",
        all_of=(
            difference("half the parameters, corruptions", HALF, CONTROL, below=True),
            difference("half the parameters, JPEG", HALF, CONTROL, JPEG, below=True),
            difference("int8, corruptions", INT8, REFERENCE, below=True),
            difference("distilled, corruptions", DISTILLED, CONTROL, below=True),
        ),
        beside=(
            excess("half, corruptions beyond clean", HALF, CONTROL, CORRUPTED),
            excess("half, JPEG beyond clean", HALF, CONTROL, JPEG),
            excess("int8, corruptions beyond clean", INT8, REFERENCE, CORRUPTED),
            excess("distilled, corruptions beyond clean", DISTILLED, CONTROL, CORRUPTED),
            difference("half, Tiny-ImageNet's classes", HALF, CONTROL, TINY, below=True),
            *(
                difference(
                    f"{source} to {target}, {told}",
                    office(source, name),
                    office(source, against),
                    (f"{source}_to_{target}",),
                    below=True,
                )
                for told, name, against in (("a fifth of the filters", "pruned", "tuned"), ("int8", "int8", "none"))
                for source in OFFICE
                for target in OFFICE
                if source != target
            ),
            difference(
                "MNIST to USPS, 30 % of the filters", digits("half"), digits("tuned"), ("mnist_to_usps",), below=True
            ),
            difference("MNIST to USPS, int8", digits("int8"), digits("none"), ("mnist_to_usps",), below=True),
        ),
    ),
    Claim(
        2,
        "Larger networks lose more when they are compressed to a smaller one's size",
        "Shen et al. 2024, compressed networks for edge devices",
        "both are pruned to the same 134.8 thousand parameters, and each is compared with its own fine-tuned original",
        "more epochs: the larger network loses 84 % of its weights, and four epochs on a fifth of the data may not do",
        all_of=tuple(
            Contrast(
                f"ResNet-56's loss less ResNet-20's, {name}",
                (
                    Term(1, cifar("half", "resnet56"), shifts),
                    Term(-1, cifar("control:half", "resnet56"), shifts),
                    Term(-1, HALF, shifts),
                    Term(1, CONTROL, shifts),
                ),
                below=True,
            )
            for name, shifts in (("clean", CLEAN), ("corruptions", CORRUPTED))
        ),
    ),
    Claim(
        3,
        "Distilled networks are more robust than pruned ones of equal size",
        "Shen et al. 2024, compressed networks for edge devices",
        "the small network trained directly, in the same epochs on the same images",
        "a student that sees the whole training set: here 9,500 of its 50,000 images",
        all_of=(
            difference("distilled less pruned, corruptions", DISTILLED, HALF),
            difference("distilled less trained directly, corruptions", DISTILLED, DIRECT),
        ),
        beside=(
            difference("distilled less pruned, PGD", DISTILLED, HALF, ("pgd",), part="attacked"),
            difference("distilled less pruned, Square", DISTILLED, HALF, ("square",), part="attacked"),
            difference("distilled less trained directly, PGD", DISTILLED, DIRECT, ("pgd",), part="attacked"),
            difference("distilled less pruned, clean", DISTILLED, HALF, CLEAN),
        ),
    ),
    Claim(
        4,
        "Int8 is the most robust of the three",
        "Shen et al. 2024, compressed networks for edge devices",
        "the file itself is asked; attacked through its twin, by transfer and without gradients, the worst counts",
        "others of its accuracy: here they are smaller networks, and int8 is the original with rounded numbers",
        all_of=(
            difference("int8 less pruned, corruptions", INT8, HALF),
            difference("int8 less distilled, corruptions", INT8, DISTILLED),
            difference("int8 less pruned, PGD", INT8, HALF, ("pgd",), part="attacked"),
            difference("int8 less distilled, PGD", INT8, DISTILLED, ("pgd",), part="attacked"),
        ),
        beside=(
            difference("int8 less its own original, PGD", INT8, REFERENCE, ("pgd",), part="attacked"),
            difference("int8 less its own original, Square", INT8, REFERENCE, ("square",), part="attacked"),
            difference("int8 less its own original, corruptions", INT8, REFERENCE),
        ),
    ),
    Claim(
        5,
        "AdaSAP beats plain pruning, and uniform sharpness-aware pruning, at equal size and equal epochs",
        "Bair et al. 2024, AdaSAP",
        "the same epochs and size: plain pruning, and its own phases with one radius for all filters, or none",
        "the paper's 90 epochs on ImageNet; here four, on a fifth of CIFAR-10, and plain pruning has all to recover",
        all_of=(
            difference("AdaSAP less plain pruning, corruptions", ADASAP, HALF),
            difference("AdaSAP less one radius for all, corruptions", ADASAP, UNIFORM),
        ),
        beside=(
            difference("AdaSAP less plain pruning, clean", ADASAP, HALF, CLEAN),
            difference("AdaSAP less its phases without a radius, corruptions", ADASAP, PHASES),
            difference("its phases without a radius less plain pruning, corruptions", PHASES, HALF),
            difference("one radius for all less plain pruning, corruptions", UNIFORM, HALF),
            difference("unpruned, AdaSAP less plain training, corruptions", cifar("control:half_adasap"), CONTROL),
        ),
    ),
    Claim(
        6,
        "AdCorDA raises clean accuracy, of float networks and of quantized ones",
        "Shen et al. 2024, AdCorDA",
        "the same epochs on the same images without correction",
        "a larger training set: here it has 9,500 images of 100 classes, as many as are corrected",
        all_of=(
            difference("float, less its control", hundred("adcorda"), hundred("tuned"), CLEAN),
            difference(
                "ResNet-20, float, less its control",
                hundred("adcorda", "resnet20"),
                hundred("tuned", "resnet20"),
                CLEAN,
            ),
            difference("int8, less its control", hundred("int8_adcorda"), hundred("int8_tuned"), CLEAN),
        ),
        beside=(
            difference("float, less the original", hundred("adcorda"), hundred("none"), CLEAN),
            difference("int8, less the original", hundred("int8_adcorda"), hundred("int8"), CLEAN),
            difference("the control, less the original", hundred("tuned"), hundred("none"), CLEAN),
            difference(
                "ResNet-20, float, less the original",
                hundred("adcorda", "resnet20"),
                hundred("none", "resnet20"),
                CLEAN,
            ),
        ),
    ),
    Claim(
        7,
        "AdCorDA's correction raises adversarial robustness",
        "Shen et al. 2024, AdCorDA",
        "the same epochs on the same images without correction; Square asks without gradients",
        "attacks on more images, and a larger budget",
        all_of=(
            difference("PGD, less its control", hundred("adcorda"), hundred("tuned"), ("pgd",), part="attacked"),
            difference("Square, less its control", hundred("adcorda"), hundred("tuned"), ("square",), part="attacked"),
        ),
        beside=(
            difference(
                "int8, PGD, less its control", hundred("int8_adcorda"), hundred("int8_tuned"), ("pgd",), part="attacked"
            ),
            difference("PGD, less the original", hundred("adcorda"), hundred("none"), ("pgd",), part="attacked"),
        ),
    ),
    Claim(
        8,
        f"Some compressions keep corruption robustness within {100 * MARGIN:g} point, or improve it",
        "Alves da Silva et al. 2025, compression on CIFAR-C",
        "the uncompressed network with the same extra fine-tuning",
        "another margin",
        any_of=tuple(
            difference(f"{name}, corruptions", cifar(name), cifar(against), limit=-MARGIN)
            for name, against in (
                ("int8", "none"),
                ("sparse", "control:sparse"),
                ("clustered", "control:clustered"),
            )
        ),
        beside=tuple(
            difference(f"{name}, improved over its control", cifar(name), cifar(against))
            for name, against in (("int8", "none"), ("sparse", "control:sparse"), ("clustered", "control:clustered"))
        ),
    ),
    Claim(
        9,
        "Combinations give better trade-offs than single methods",
        "Alves da Silva et al. 2025, compression on CIFAR-C",
        f"a combination must be smaller than the smallest single method, and within {100 * MARGIN:g} point of it",
        "another margin, or another measure of size than deflated bytes",
        any_of=tuple(
            replace(difference(f"{name} less int8, corruptions", cifar(name), INT8, limit=-MARGIN), smaller=True)
            for name in COMBINED
        ),
        beside=tuple(
            difference(f"{name} less int8, clean", cifar(name), INT8, CLEAN, limit=-MARGIN) for name in COMBINED
        ),
    ),
)

ADAPTED = (
    *(
        difference(
            f"{source} to {target}",
            office(source, f"coral_{target}"),
            office(source, "tuned"),
            (f"{source}_to_{target}",),
        )
        for source in OFFICE
        for target in OFFICE
        if source != target
    ),
    difference("MNIST to USPS", digits("coral"), digits("tuned"), ("mnist_to_usps",)),
)
"""Deep CORAL: the target's accuracy against the same training without its images."""
ADAPTED_FROM = tuple(
    difference(f"{one.name}, less the original", one.terms[0].network, _original(one), one.terms[0].shifts)
    for one in ADAPTED
)

SHARPENED = tuple(
    difference(f"{name}, what pruning costs", cifar(name), cifar(f"control:{name}"))
    for name in ("half", "half_uniform", "half_adasap")
)
"""Pruned networks, and the same trainings without pruning: how steep the loss is before and after."""
