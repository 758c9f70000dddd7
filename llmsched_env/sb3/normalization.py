"""The normalisation of observations that a model was trained with: Stable-Baselines3's `VecNormalize`."""

import hashlib
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np

from llmsched_env.sb3.unpickling import plain, read_state
from llmsched_env.validation import check_number


@dataclass(frozen=True, eq=False)
class Normalization:
    """Subtracts the mean, divides by the standard deviation, and clips.

    Attributes:
        mean: f8[features].
        var: f8[features].
        epsilon: added to the variance.
        clip: largest absolute value of the outcome.

    Raises:
        ValueError: if the arrays are not of one size, or a number is not finite or out of range.
    """

    mean: np.ndarray
    var: np.ndarray
    epsilon: float
    clip: float

    def __post_init__(self) -> None:
        for name in ("mean", "var"):
            values = np.array(getattr(self, name), np.float64)
            object.__setattr__(self, name, values)
            if values.ndim != 1 or not np.isfinite(values).all() or (name == "var" and (values < 0.0).any()):
                raise ValueError(f"obs_rms.{name} must be a list of finite numbers (variances >= 0), got {values!r}")
        if self.mean.shape != self.var.shape:
            raise ValueError(f"obs_rms must have as many means as variances, got {len(self.mean)} and {len(self.var)}")
        check_number("epsilon", self.epsilon, at_least=0)
        check_number("clip_obs", self.clip, above=0, finite=False)
        object.__setattr__(self, "_deviation", np.sqrt(self.var + self.epsilon))

    @classmethod
    def of(cls, vec_normalize: Any) -> Self | None:
        """Of a `VecNormalize` object; None if it leaves observations as they are.

        Raises:
            ValueError: if it has no statistics of one vector of observations.
        """
        try:
            if not vec_normalize.norm_obs:
                return None
            rms = vec_normalize.obs_rms
            return cls(rms.mean, rms.var, float(vec_normalize.epsilon), float(vec_normalize.clip_obs))
        except (AttributeError, TypeError) as error:
            raise ValueError(f"vec_normalize must be a VecNormalize, or the path of one, got {error}") from None

    @classmethod
    def read(cls, path: str | Path) -> Self | None:
        """Of a file that `VecNormalize.save` wrote, of which nothing is run; None if it leaves observations alone.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is another file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no VecNormalize file at {path}")
        try:
            state = read_state(path.read_bytes())
            if not state.origin.endswith(".VecNormalize"):
                raise ValueError(f"it holds {state.origin}")
            fields = state.fields
            if not plain(fields["norm_obs"]):
                return None
            rms = fields["obs_rms"].fields
            return cls(
                plain(rms["mean"]),
                plain(rms["var"]),
                float(plain(fields["epsilon"])),
                float(plain(fields["clip_obs"])),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no file of VecNormalize.save: {error}") from None

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """f4[features]: what the model is shown of an observation f4[features]."""
        deviation: np.ndarray = self._deviation  # type: ignore[attr-defined]  # set once, in __post_init__
        return np.asarray(np.clip((observation - self.mean) / deviation, -self.clip, self.clip), np.float32)

    def to_bytes(self) -> bytes:
        """As an `.npz` file."""
        content = BytesIO()
        np.savez(content, mean=self.mean, var=self.var, epsilon=self.epsilon, clip=self.clip)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` wrote.

        Raises:
            ValueError: if it is something else.
        """
        try:
            with np.load(BytesIO(content)) as file:
                return cls(file["mean"], file["var"], float(file["epsilon"]), float(file["clip"]))
        except (KeyError, TypeError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
            raise ValueError(f"its normalisation is malformed: {error}") from None

    @property
    def digest(self) -> str:
        """Changes with anything that decides."""
        what = (self.mean.tobytes(), self.var.tobytes(), self.epsilon, self.clip)
        return hashlib.sha256(repr(what).encode()).hexdigest()
