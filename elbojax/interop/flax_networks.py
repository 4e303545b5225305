"""Small networks for encoders and decoders, in flax linen: a start to be copied and changed.

The rest of elbojax knows no network library. Each describes one data point; batches come from `vmap`, which makes of them
the same matrix products.
"""

from collections.abc import Callable, Sequence

from flax import linen as nn

from elbojax.families.mean_field import MeanField
from elbojax.types import Array


class MLP(nn.Module):
    r"""Dense layers with a nonlinearity between them.

    .. math:: h_{l+1} = \sigma(W_l h_l + b_l), \qquad \mathrm{out} = W_L h_L + b_L

    Attributes:
      hidden: units of each hidden layer; none for a linear map.
      size: of what comes out.
      activation: sigma.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> decoder = MLP(hidden=(16,), size=64)
      >>> params = decoder.init(jax.random.key(0), jnp.zeros(2))
      >>> decoder.apply(params, jnp.zeros(2)).shape
      (64,)
    """

    hidden: Sequence[int]
    size: int
    activation: Callable[[Array], Array] = nn.tanh

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """From [D] to [size]."""
        for units in self.hidden:
            x = self.activation(nn.Dense(units)(x))
        return nn.Dense(self.size)(x)


class ConvEncoder(nn.Module):
    """Convolutions that halve the image each time, then one dense layer.

    Attributes:
      channels: of each convolution.
      size: of what comes out.
      activation: after each convolution.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> encoder = ConvEncoder(channels=(8, 16), size=32)
      >>> params = encoder.init(jax.random.key(0), jnp.zeros((8, 8)))
      >>> encoder.apply(params, jnp.zeros((8, 8))).shape
      (32,)
    """

    channels: Sequence[int]
    size: int
    activation: Callable[[Array], Array] = nn.silu

    @nn.compact
    def __call__(self, image: Array) -> Array:
        """From [height, width] or [height, width, channels] to [size]."""
        x = image if image.ndim == 3 else image[..., None]
        for channels in self.channels:
            x = self.activation(nn.Conv(channels, (3, 3), strides=2)(x))
        return nn.Dense(self.size)(x.ravel())


class ConvDecoder(nn.Module):
    """One dense layer to a small image, then transposed convolutions that double it each time.

    Attributes:
      channels: of the small image and of each doubling but the last, which has one channel.
      shape: height and width of what comes out, divisible by 2 to the number of channels.
      activation: before each convolution.

    Raises:
      ValueError: at `init`, the shape cannot be halved so often.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> decoder = ConvDecoder(channels=(16, 8), shape=(8, 8))
      >>> params = decoder.init(jax.random.key(0), jnp.zeros(2))
      >>> decoder.apply(params, jnp.zeros(2)).shape
      (8, 8)
    """

    channels: Sequence[int]
    shape: tuple[int, int]
    activation: Callable[[Array], Array] = nn.silu

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """From [D] to [height, width], logits say."""
        factor = 2 ** len(self.channels)
        if self.shape[0] % factor or self.shape[1] % factor:
            raise ValueError(
                f"shape must be divisible by {factor}, for {len(self.channels)} doublings, got {self.shape}"
            )
        height, width = self.shape[0] // factor, self.shape[1] // factor
        x = nn.Dense(height * width * self.channels[0])(z).reshape(height, width, self.channels[0])
        for channels in (*self.channels[1:], 1):
            x = nn.ConvTranspose(channels, (3, 3), strides=(2, 2))(self.activation(x))
        return x[..., 0]


class GaussianHead(nn.Module):
    """What a body says of one data point, as a `MeanField`: the usual q(z|x).

    Attributes:
      body: any module from one data point to a vector.
      size: of the latent.
      activation: between body and head.

    Example:
      >>> import elbojax, jax, jax.numpy as jnp
      >>> encoder = GaussianHead(MLP(hidden=(16,), size=16), size=2)
      >>> params = encoder.init(jax.random.key(0), jnp.zeros(64))
      >>> q = encoder.apply(params, jnp.ones(64))
      >>> q.sample(jax.random.key(1)).shape
      (2,)

    References:
      Kingma, Welling 2014, appendix C, https://arxiv.org/abs/1312.6114
    """

    body: nn.Module
    size: int
    activation: Callable[[Array], Array] = nn.tanh

    @nn.compact
    def __call__(self, x: Array) -> MeanField:
        """From one data point to its q."""
        h = self.activation(self.body(x))
        return MeanField(nn.Dense(self.size, name="loc")(h), nn.Dense(self.size, name="log_scale")(h))
