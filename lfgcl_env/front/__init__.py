"""Any budget: asking one agent for every budget, and the front of networks made of its answers.

An agent that learnt on a range of budgets sees the budget of every episode, so that it can be asked
for any. :func:`lfgcl_env.search.search` does so at the end of a search over a range; here are its
parts, for programs::

    env = gym.make("LFGCL-ResNet20-v0", budget=(0.3, 0.8))
    result = search(env, "ddpg", 800)
    budgets = spaced(0.3, 0.8, 6)
    predicted = ask(env, result.agent, budgets)  # what the agent alone is worth
    visited = [record.evaluation for record in result.records]
    images = env.unwrapped.repair_images()
    points = list(front(env.unwrapped.problem, budgets, predicted, visited, images))

A point of the front is the best of three: what the agent predicts for the budget, what the search
visited within it (on whichever budget), and the allocation by sensitivities.
"""

from lfgcl_env.front.points import Point, answer, ask, front, label, meets, spaced

__all__ = ["Point", "answer", "ask", "front", "label", "meets", "spaced"]
