"""Settings of the LFGCL agent."""

from dataclasses import dataclass

from ._groups import View


@dataclass(frozen=True)
class Arguments(View):
    """Settings of the agent, besides those of its view of a network."""

    # networks
    hidden: int = 64  # units of every hidden layer
    critics: int = 4  # members of the ensemble
    logit_bound: float = 4.0  # the actor's logits lie within +- this
    # learning
    actor_learning_rate: float = 3e-3  # of Adam
    critic_learning_rate: float = 3e-3  # of AdamW
    weight_decay: float = 1e-3  # of the critics
    batch_size: int = 32  # strategies in a critic's batch
    actor_batch_size: int = 16  # observations in the actor's batch, where budgets differ
    updates: int = 20  # of critics after every evaluation, of the actor whenever it is trained
    actor_interval: int = 4  # evaluations from one training of the actor to the next
    gradient_clip: float = 1.0  # norm of the actor's gradient
    trend_degree: int = 3  # of the polynomial of the budget that is subtracted from values
    # proposals
    candidates: int = 64  # proposals for every evaluation
    elites: int = 4  # best strategies so far that are centres of noise
    noise: float = 0.6  # standard deviation of the noise at the start, in logits
    last_noise: float = 0.1  # and at the end
    anneal: int = 250  # evaluations until the end
    least_scale: float = 0.3  # a proposal's noise is scaled by a uniform draw between this
    most_scale: float = 1.7  # and this
    least_share: float = 0.2  # share of groups that a proposal moves: between this and all
    smooth: float = 1.0  # noise that varies smoothly over depth, relative to that of single groups
    smooth_share: float = 0.7  # of proposals that have it
    growth: float = 1.5  # factor of the noise for every repeated strategy in a row
    most_growths: int = 8  # of them
    # choice
    warm_up: int = 8  # evaluations before the critics choose and elites are centres
    head_start: int = 125  # evaluations of annealing and warm-up that another run's agent saves
    optimism: float = 0.5  # weight of the critics' spread in the choice
    screened: int = 4  # proposals that are screened for every evaluation, where steps are costly
    # ablation
    actor: bool = True  # False: elites are the only centres
    choice: bool = True  # False: the first proposal is executed, whatever critics say

    def __post_init__(self) -> None:
        if not self.actor and not self.elites:
            raise ValueError("without an actor, elites must be at least 1: noise needs a centre")
