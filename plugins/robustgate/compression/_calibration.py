"""What the steps share that quantize activations by calibration: their parameters, and ONNX Runtime's quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from robustgate.compression._onnx_export import export, first_line, save, silence
from robustgate.core.errors import CompressionError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from robustgate.core.components import Workshop

BATCH = 10


@dataclass(frozen=True, kw_only=True)
class CalibratedQuantizer:
    """Weights of int8, activations of 8 bits whose ranges come from calibration images.

    The ranges are taken from at most `calibration_images` of the source domain's calibration split, spread evenly
    over it (many data sets are stored class by class): their extremes, or a percentile (99.999), or the range that
    loses least information (`calibration`). `reduce_range` leaves weights one bit of room, so that the file answers
    alike on every processor: on those without VNNI, ONNX Runtime's products of uint8 and full int8 saturate (the
    published ResNet-20 for CIFAR-10 then loses a point, and agrees with its twin on 97 % of the images instead of
    99.8). Where the device is known to be exact, the bit can be had back.
    """

    calibration_images: int = 200
    calibration: Literal["minmax", "percentile", "entropy"] = "minmax"
    activations: Literal["uint8", "int8"] = "uint8"
    reduce_range: bool = True

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise ValueError(f"calibration_images must be at least 1, got {self.calibration_images}")

    @property
    def largest_code(self) -> int:
        """The largest code of a weight."""
        return 64 if self.reduce_range else 127

    def quantize(self, module: nn.Module, workshop: Workshop, *, per_channel: bool, method: str) -> Path:
        """Write float and quantized file into the workshop's folder, and return the latter's path.

        The same network and images give the same bytes. Raises CompressionError naming `method`.
        """
        images = self._images(workshop)
        exported, product = workshop.folder / "float.onnx", workshop.folder / "int8.onnx"
        with silence():
            save(export(module, workshop.example, method=method), exported)
            self._quantize(exported, product, images, per_channel, method)
        return product

    def _images(self, workshop: Workshop) -> NDArray[np.uint8]:
        import numpy as np

        images = workshop.samples("calibration").images
        count = min(self.calibration_images, len(images))
        return images[np.arange(count) * len(images) // count]

    def _quantize(
        self, exported: Path, product: Path, images: NDArray[np.uint8], per_channel: bool, method: str
    ) -> None:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        prepared = exported.with_name("prepared.onnx")
        methods = quantization.CalibrationMethod
        try:
            quant_pre_process(exported, prepared)
            quantization.quantize_static(
                prepared,
                product,
                CalibrationBatches(images, onnx.load(prepared).graph.input[0].name),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=per_channel,
                reduce_range=self.reduce_range,
                weight_type=quantization.QuantType.QInt8,
                activation_type={"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}[
                    self.activations
                ],
                calibrate_method={
                    "minmax": methods.MinMax,
                    "percentile": methods.Percentile,
                    "entropy": methods.Entropy,
                }[self.calibration],
                # One batch at a time: otherwise the activations of all images are held at once.
                extra_options={"CalibStridedMinMax": 1},
            )
        except Exception as error:
            raise CompressionError(
                f"{method}: ONNX Runtime cannot quantize the network: {first_line(error)}"
            ) from error
        finally:
            prepared.unlink(missing_ok=True)
        save(onnx.load(product), product)


class CalibrationBatches:
    """The calibration images, as ONNX Runtime asks for them: it counts batches, and sets a range of them."""

    def __init__(self, images: NDArray[np.uint8], input_name: str) -> None:
        self.images = images
        self.input_name = input_name
        self.set_range(0, len(self))

    def __len__(self) -> int:
        return -(-len(self.images) // BATCH)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Read batches `start_index` up to `end_index`, not included, from now on."""
        self.pending = iter(range(start_index, end_index))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next batch as the file's input, or None behind the last."""
        import numpy as np

        batch = next(self.pending, None)
        if batch is None:
            return None
        pixels = self.images[batch * BATCH : (batch + 1) * BATCH].transpose(0, 3, 1, 2)
        return {self.input_name: np.ascontiguousarray(pixels, dtype=np.float32) / np.float32(255)}
