"""Routing of Heinsen, "An algorithm for routing capsules in all domains" (2019)."""

from collections.abc import Iterator
from typing import Any

from torch.nn.functional import logsigmoid

from matcaps.layers.routings.base import Step, VoteRouting
from matcaps.routing import Children


class HeinsenRouting(VoteRouting):
    """EM in which a parent gains by the data it uses and pays for those it ignores, per child and parent ("D-step").

    ``a_j = sum_i (β_use[i, j] D_use[i, j] - β_ign[i, j] D_ign[i, j])``, where a child's data are used as far as they
    are assigned to the parent and ignored otherwise. Activations are logits in that paper and logistic here, as
    everywhere in matcaps. Both β start at 0, so that every activation starts at ½. Votes have no bias of their own.
    """

    kind = "heinsen"

    def __init__(self, kinds: int, num_parents: int, **settings: Any):
        super().__init__(kinds, num_parents, **settings)
        self.learn_table("beta_use")
        self.learn_table("beta_ignore")

    def iterate(self, children: Children) -> Iterator[Step]:
        beta_use, beta_ignore = (self.table(name, children) for name in ("beta_use", "beta_ignore"))
        present = children.activations.unsqueeze(-1)
        assignment = children.uniform
        for iteration in range(self.num_iterations):
            # D-step
            used = present * assignment
            ignored = present - used
            # M-step
            logit = (beta_use * used - beta_ignore * ignored).sum(dim=-2)
            _, mean, spread = children.moments(assignment)
            variance = spread + self.spec.variance_floor
            yield Step(assignment, mean, logit.sigmoid())
            # E-step
            if iteration + 1 < self.num_iterations:
                offset = (children.votes - mean.unsqueeze(-3)) ** 2
                log_density = -(offset / variance.unsqueeze(-3) + variance.log().unsqueeze(-3)).sum(dim=-1) / 2
                assignment = children.softmax(logsigmoid(logit).unsqueeze(-2) + log_density)
