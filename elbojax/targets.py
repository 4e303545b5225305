"""Targets (interim)."""
import dataclasses, math
from typing import Any, Callable
import jax, jax.numpy as jnp
from elbojax import bijectors as B
@dataclasses.dataclass(frozen=True)
class Target:
    function: Callable
    treedef: Any
    shapes: tuple
    bijectors: tuple
    size: int
    def _split(self,flat):
        out=[];i=0
        for s,b in zip(self.shapes,self.bijectors):
            us=b.unconstrained_shape(s); n=math.prod(us); out.append(flat[i:i+n].reshape(us)); i+=n
        return out
    def log_density(self,flat,*data):
        xs=[b.forward_and_log_det(x) for b,x in zip(self.bijectors,self._split(flat))]
        return self.function(jax.tree.unflatten(self.treedef,[x for x,_ in xs]),*data)+sum(l for _,l in xs)
    def constrain(self,flat): return jax.tree.unflatten(self.treedef,[b.forward(x) for b,x in zip(self.bijectors,self._split(flat))])
    def unconstrain(self,p): return jnp.concatenate([jnp.ravel(b.inverse(x)) for b,x in zip(self.bijectors,jax.tree.leaves(p))])
def unconstrain(log_density,init,support=None,*,data=None):
    bs=tuple(jax.tree.leaves(B.resolve(support,init),is_leaf=lambda b:isinstance(b,B.Bijector)))
    ls,td=jax.tree.flatten(init); shapes=tuple(jnp.shape(l) for l in ls)
    return Target(log_density,td,shapes,bs,sum(math.prod(b.unconstrained_shape(s)) for b,s in zip(bs,shapes)))
