"""Constraint maps (interim)."""
import dataclasses
from typing import Any
import jax, jax.numpy as jnp, numpy as np

def _reg(cls): return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True)(cls))
class Bijector:
    def forward(self,x): return self.forward_and_log_det(x)[0]
    def unconstrained_shape(self,s): return s
@_reg
class Real(Bijector):
    def forward_and_log_det(self,x): return x, jnp.zeros((),x.dtype)
    def inverse(self,y): return y
@_reg
class LowerBounded(Bijector):
    low: float = 0.0
    def forward_and_log_det(self,x): return self.low+jnp.exp(x), jnp.sum(x)
    def inverse(self,y): return jnp.log(y-self.low)
@_reg
class Interval(Bijector):
    low: float=0.0
    high: float=1.0
    def forward_and_log_det(self,x):
        s=jax.nn.sigmoid(x); return self.low+(self.high-self.low)*s, jnp.sum(jnp.log(self.high-self.low)-jax.nn.softplus(x)-jax.nn.softplus(-x))
    def inverse(self,y): p=(y-self.low)/(self.high-self.low); return jnp.log(p)-jnp.log1p(-p)
@_reg
class Simplex(Bijector):
    def unconstrained_shape(self,s): return s[:-1]+(s[-1]-1,)
    def forward_and_log_det(self,x):
        K=x.shape[-1]+1; off=jnp.log(jnp.arange(K-1,0,-1.)).astype(x.dtype); t=x-off
        lz=-jax.nn.softplus(-t); l1=-jax.nn.softplus(t); rem=jnp.concatenate([jnp.zeros_like(x[...,:1]),jnp.cumsum(l1,-1)],-1)
        ly=jnp.concatenate([lz+rem[...,:-1],rem[...,-1:]],-1); return jnp.exp(ly), jnp.sum(lz+l1+rem[...,:-1])
    def inverse(self,y):
        K=y.shape[-1]; r=1-jnp.concatenate([jnp.zeros_like(y[...,:1]),jnp.cumsum(y[...,:-2],-1)],-1); z=y[...,:-1]/r
        return jnp.log(z)-jnp.log1p(-z)+jnp.log(jnp.arange(K-1,0,-1.)).astype(y.dtype)
@_reg
class Ordered(Bijector):
    def forward_and_log_det(self,x):
        return jnp.concatenate([x[...,:1],x[...,:1]+jnp.cumsum(jnp.exp(x[...,1:]),-1)],-1), jnp.sum(x[...,1:])
    def inverse(self,y): return jnp.concatenate([y[...,:1],jnp.log(jnp.diff(y))],-1)
@_reg
class PositiveOrdered(Bijector):
    def forward_and_log_det(self,x): return jnp.cumsum(jnp.exp(x),-1), jnp.sum(x)
    def inverse(self,y): return jnp.log(jnp.concatenate([y[...,:1],jnp.diff(y)],-1))
def lower_bounded(low): return LowerBounded(float(low))
NAMES={'real':Real(),'positive':LowerBounded(0.0),'unit_interval':Interval(),'simplex':Simplex(),'ordered':Ordered(),'positive_ordered':PositiveOrdered()}
def resolve(support,like):
    isb=lambda b: isinstance(b,(str,Bijector))
    if support is None: return jax.tree.map(lambda _: NAMES['real'],like)
    if isinstance(support,dict) and isinstance(like,dict): support={k:support.get(k,'real') for k in like}
    support=jax.tree.map(lambda b: NAMES[b] if isinstance(b,str) else b,support,is_leaf=isb)
    return jax.tree.map(lambda b,l: b,support,like,is_leaf=isb)
