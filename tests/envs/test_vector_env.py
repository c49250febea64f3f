"""Vector environments: several episodes on one problem, the same as single environments."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, RescaleAction, TransformReward
from networks_for_tests import awaken, plain
from torch import Tensor, nn

from lfgcl_env.engine import Processes
from lfgcl_env.envs import LFGCLEnv
from lfgcl_env.envs.choice import Choice
from lfgcl_env.envs.registration import ALL_IDS
from lfgcl_env.envs.together import begin_ahead, score_ahead, twins
from lfgcl_env.pruning import PruningProblem

COUNT = 3
QUICK = {
    "network": f"{__name__}:own_network",
    "images": "random",
    "num_images": 8,
    "input_shape": (3, 8, 8),
    "reward": "similarity",
    "budget": (0.4, 0.9),
}
IDS = ("LFGCL-v0", "AMC-v0")


def own_network() -> nn.Module:
    return awaken(plain())


def first_output(network: nn.Module, images: Tensor) -> float:
    """A reward of one's own."""
    return float(network(images)[0, 0])


@pytest.fixture(scope="module")
def workers():
    with Processes(2) as executor:
        yield executor


def vector(env_id: str = IDS[0], count: int = COUNT, **arguments) -> gym.vector.VectorEnv:
    return gym.make_vec(
        env_id,
        num_envs=count,
        vectorization_mode="vector_entry_point",
        **(QUICK | arguments),
    )


def singles(env_id: str, **arguments) -> SyncVectorEnv:
    """What Gymnasium makes of single environments."""
    make = lambda: gym.make(env_id, **(QUICK | arguments))  # noqa: E731
    return SyncVectorEnv([make] * COUNT, autoreset_mode=AutoresetMode.SAME_STEP)


def scored_here(monkeypatch) -> list[tuple[int, ...]]:
    """The strategies that this process scores from now on."""
    found: list[tuple[int, ...]] = []
    score = PruningProblem._score

    def noted(problem, keep):
        found.append(tuple(keep.tolist()))
        return score(problem, keep)

    monkeypatch.setattr(PruningProblem, "_score", noted)
    return found


@pytest.mark.parametrize("reward", ["similarity", first_output])
@pytest.mark.parametrize("horizon", [1, 3])
def test_global_environments_do_what_single_ones_do(workers, monkeypatch, horizon, reward):
    arguments = {"horizon": horizon, "reward": reward}
    check_equal(IDS[0], workers, monkeypatch, **arguments)


def test_layerwise_environments_do_what_single_ones_do(workers, monkeypatch):
    check_equal(IDS[1], workers, monkeypatch)


def check_equal(env_id, workers, monkeypatch, **arguments) -> None:
    alone = singles(env_id, **arguments)
    alone.action_space.seed(5)
    actions = [alone.action_space.sample() for _ in range(7)]
    expected = [alone.reset(seed=3), *map(alone.step, actions)]
    here = scored_here(monkeypatch)
    together = vector(env_id, engine=workers, **arguments)
    seen = [together.reset(seed=3), *map(together.step, actions)]
    assert data_equivalence(seen, expected, exact=True)
    assert any(infos.get("final_info") for *_, infos in seen)
    assert not here


@pytest.mark.parametrize("env_id", IDS)
def test_without_an_engine_this_process_scores(env_id, monkeypatch):
    here = scored_here(monkeypatch)
    envs = vector(env_id, budget=0.5)
    envs.reset(seed=0)
    for _ in range(2):
        envs.step(envs.action_space.sample())
    assert here


def test_spaces_are_batches_and_the_next_episode_begins_in_the_same_step():
    envs = vector(budget=0.5)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert envs.num_envs == COUNT
    assert envs.action_space.shape == (COUNT, 2)
    assert envs.observation_space.shape == (COUNT, 2, 22)
    begun, _ = envs.reset(seed=0)
    after, _, terminated, _, infos = envs.step(envs.action_space.sample())
    assert terminated.all()
    assert (after == begun).all()
    assert (np.stack(infos["final_obs"]) != begun).any()
    assert infos["_final_info"].all()


def test_every_environment_has_a_seed_and_a_budget_of_its_own():
    envs = vector()
    _, infos = envs.reset(seed=[7, 8, 7])
    one, other, same = infos["budget"]
    assert one == same != other
    _, infos = envs.reset(options={"budget": 0.6})
    assert (infos["budget"] == 0.6).all()
    _, infos = envs.reset()
    one, other, same = infos["budget"]
    assert one == same != other


def test_all_share_one_problem():
    assert len(set(vector().get_attr("problem"))) == 1


@pytest.mark.parametrize("env_id", ALL_IDS)
def test_every_id_has_a_vector_environment(env_id):
    kind = gym.envs.registration.load_env_creator(gym.spec(env_id).vector_entry_point)
    assert kind.single.__name__ == gym.spec(env_id).entry_point.partition(":")[2]


@pytest.mark.slow
def test_workers_by_name_score_as_this_process_does():
    arguments = {"num_images": 8, "weights": "embedded"}
    results = []
    for engine in ("processes", "serial"):
        envs = gym.make_vec("LFGCL-ResNet20-v0", num_envs=2, engine=engine, **arguments)
        envs.reset(seed=0)
        envs.action_space.seed(0)
        results.append([envs.step(envs.action_space.sample()) for _ in range(2)])
        envs.close()
    assert data_equivalence(*results, exact=True)


def test_there_are_as_many_workers_as_environments_where_their_number_is_not_given():
    assert vector(engine="processes").envs[0].workers == COUNT
    assert vector(engine="processes", workers=2).envs[0].workers == 2
    assert vector().envs[0].workers == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "num_envs must be"),
        ({"engine": "proceses"}, "Did you mean 'processes'"),
        ({"engine": "serial", "workers": 3}, "this process alone"),
        ({"workers": 0}, "workers must be"),
        ({"nonsense": 3}, "got an unexpected keyword argument 'nonsense'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        vector(**arguments)


def test_bad_actions_are_refused_as_by_single_environments(workers):
    envs = vector(engine=workers)
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(envs.action_space.sample())
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        envs.step(np.full((COUNT, 2), 2.0, np.float32))


def test_twins_have_wrappers_and_episodes_of_their_own():
    env = RescaleAction(FlattenObservation(gym.make("LFGCL-v0", **QUICK)), -1.0, 1.0)
    env.reset(seed=0)
    first, second = twins(env, 2)
    assert first is env
    assert second.unwrapped.problem is env.unwrapped.problem
    with pytest.raises(gym.error.ResetNeeded):
        second.step(second.action_space.sample())
    observation, info = second.reset(seed=1)
    assert observation.shape == (44,)
    assert info["budget"] != env.unwrapped.budget


def test_what_is_scored_ahead_is_what_wrapped_steps_lead_to(workers, monkeypatch):
    env = gym.make("LFGCL-v0", engine=workers, **QUICK)
    wrapped = RescaleAction(TransformReward(env, lambda reward: -reward), -1.0, 1.0)
    envs = twins(wrapped, 2)
    here = scored_here(monkeypatch)
    for seed, one in enumerate(envs):
        one.reset(seed=seed)
    actions = [np.array(pair, np.float32) for pair in ((-0.9, 0.5), (0.2, 0.1))]
    score_ahead(envs, actions)
    results = [one.step(action) for one, action in zip(envs, actions, strict=True)]
    assert not here
    assert all(reward == -info["similarity"] for _, reward, _, _, info in results)


SCREENING = QUICK | {"repair": "sequential", "budget": 0.5}


def test_a_worker_scores_the_best_of_a_choice_and_nothing_that_is_known(workers, monkeypatch):
    env = gym.make("LFGCL-v0", engine=workers, workers=2, **SCREENING)
    own, problem = env.unwrapped, env.unwrapped.problem
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(size=(4, 2)).astype(np.float32)
    keeps = [tuple(problem.project(action).tolist()) for action in actions]
    expected = LFGCLEnv(**SCREENING).screen(actions, 0.5)
    here = scored_here(monkeypatch)
    choice = Choice(actions)
    begin_ahead(env, [choice], 1)
    begin_ahead(env, [choice], 1)  # which begins nothing
    scores = own.scores_of(choice)
    assert (scores == expected).all()
    assert problem.screened == len(set(keeps))
    assert [problem.known(keep) for keep in keeps] == [k == keeps[scores.argmax()] for k in keeps]
    worst = Choice(actions, lowest)
    begin_ahead(env, [worst], 1)
    assert (own.scores_of(worst) == expected).all()
    assert problem.known(keeps[expected.argmin()])
    own.on_scored = lambda *_: pytest.fail("it was scored before")
    begin_ahead(env, [again := Choice(actions)], 1)
    own.scores_of(again)
    assert not here


def lowest(scores):
    return int(scores.argmin())


def test_a_choice_that_was_given_up_is_screened_when_it_is_asked_for(workers):
    env = gym.make("LFGCL-v0", engine=workers, workers=2, **SCREENING)
    env.reset(seed=0)
    choice = Choice(np.array([[0.2, 0.8], [0.7, 0.1]], np.float32))
    begin_ahead(env, [choice], 1)
    env.unwrapped.give_up()
    assert (env.unwrapped.scores_of(choice) == env.unwrapped.screen(choice.actions)).all()


def test_a_choice_that_wrappers_change_is_not_begun(workers, monkeypatch):
    env = gym.make("LFGCL-v0", engine=workers, workers=2, **SCREENING)
    rescaled = RescaleAction(env, np.float32(-1), np.float32(1))
    env.reset(seed=0)
    begun = []
    monkeypatch.setattr(LFGCLEnv, "begin_choice", lambda _, choice: begun.append(choice))
    choice = Choice(np.array([[0.2, 0.8], [0.7, 0.1]], np.float32))
    begin_ahead(rescaled, [choice], 1)
    assert not begun
    begin_ahead(env, [choice], 1)
    assert begun == [choice]


def test_a_copy_of_an_environment_has_workers_of_its_own():
    env = gym.make("LFGCL-v0", workers=2, **QUICK).unwrapped
    for copied in (deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert copied._workers.executor is not env._workers.executor
        assert copied._workers.executor.workers == 2


def test_a_users_own_executor_stays_open_and_with_its_environment():
    with ThreadPoolExecutor(1) as executor:
        own = LFGCLEnv(engine=executor, **QUICK)
        assert deepcopy(own)._workers.executor is None
        own.close()
        assert executor.submit(abs, -1).result() == 1


def test_workers_start_again_after_an_environment_is_closed():
    env = gym.make("LFGCL-v0", workers=2, **QUICK).unwrapped
    env.reset(seed=0)
    before = env.screen([[0.3, 0.4], [0.5, 0.1]])
    env.close()
    env.problem.forget()
    assert (env.screen([[0.3, 0.4], [0.5, 0.1]]) == before).all()
    env.close()


def test_twins_share_their_engine_until_the_last_is_closed():
    env = gym.make("LFGCL-v0", workers=2, **QUICK).unwrapped
    twin = env.twin()
    assert twin._workers is env._workers
    env.close()
    twin.prefetch([[4, 3]])
    assert twin.problem.known([4, 3])
    engine = twin._workers.executor
    twin.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        engine.submit(abs, -1)


def test_action_wrappers_that_may_differ_at_every_call_are_not_called_ahead(workers, caplog):
    class Counting(gym.ActionWrapper):
        calls = 0

        def action(self, action):
            self.calls += 1
            return action

    class Pure(Counting):
        pure = True

    action = np.full(2, 0.3, np.float32)
    alone = Counting(gym.make("LFGCL-v0", **QUICK))
    alone.reset(seed=0)
    score_ahead([alone] * 2, [action] * 2)
    assert not caplog.messages
    inside = gym.make("LFGCL-v0", engine=workers, workers=2, **QUICK)
    env = Counting(inside)
    env.reset(seed=0)
    for _ in range(2):
        score_ahead([env] * 2, [action] * 2)
        begin_ahead(env, [action], 1)
    assert env.calls == 0
    (message,) = caplog.messages
    assert "the wrapper " in message
    assert "Counting may return another action" in message
    assert "`pure = True`" in message
    pure = Pure(inside)
    score_ahead([pure], [action])
    assert pure.calls == 1
    assert len(caplog.messages) == 1
