"""The environment, written for ONE world: pure ``reset`` and ``step``."""

import jax
import jax.numpy as jnp

from mjx_dex import rotations
from mjx_dex.config import Config
from mjx_dex.hand import Hand, build_hand
from mjx_dex.hand.kinematics import Kinematics
from mjx_dex.hand.model import NUM_JOINTS
from mjx_dex.physics import Engine, initial_state, make_engine, nominal_parameters
from mjx_dex.task import actions, goals, observations
from mjx_dex.types import (
    EffectMemory,
    EnvState,
    EpisodeDraw,
    Observation,
    PhysicsState,
    Sensors,
    TimeStep,
)

NUM_ACTIONS = 20
OBJECT_POSITION = slice(NUM_JOINTS, NUM_JOINTS + 3)
OBJECT_ORIENTATION = slice(NUM_JOINTS + 3, NUM_JOINTS + 7)


class HandEnv:
    """Turn the object to one goal orientation after another (appendix C.1).

    ``step`` is ``judge`` after ``act``, and ``reset`` is ``deal`` after ``start``-ing.
    The bank (``task/bank.py``) uses the parts, to step training worlds and starting
    worlds in one call of the engine.
    """

    def __init__(self, hand: Hand, engine: Engine, config: Config):
        observations.check_inputs(config.task.policy_inputs)
        self._engine = engine
        self._hand = hand
        self._config = config
        self._task = config.task
        self._kinematics = Kinematics(hand)
        initial = initial_state(hand.model)
        # A flat hand loses the block in 93 of 100 starts, a cupped one in 48.
        rest = jnp.asarray(hand.rest_angles, jnp.float32)
        self._initial = initial.replace(qpos=initial.qpos.at[:NUM_JOINTS].set(rest))
        self._parameters = nominal_parameters(hand.model)
        self._timesteps = jnp.full(config.physics.substeps, config.physics.timestep)
        self._frame_position = jnp.asarray(hand.frame_position, jnp.float32)
        self._frame_rotation = jnp.asarray(hand.frame_rotation, jnp.float32)

    @property
    def action_shape(self) -> tuple[int, int]:
        """Action coordinates, and bins of each."""
        return NUM_ACTIONS, self._task.action_bins

    @property
    def first_angle_limit(self) -> float:
        """Largest turn to a 'near' goal before the curriculum widens it [rad]."""
        return self._task.goal.angles[1]

    @property
    def start_steps(self) -> int:
        """Random actions before an episode begins."""
        return self._task.start_steps

    def reset(self, key: jax.Array) -> tuple[EnvState, Observation]:
        """Start an episode: random actions, again until the object is not dropped.

        Args:
            key: random key; the episode is a function of it.

        Returns:
            The state and its observation, ready for the policy.
        """

        def start_step(state):
            return self.renew(self.act(state, self.random_action(state))[0])

        begun = self.begin(key)
        state = jax.lax.while_loop(
            lambda state: ~self.is_started(state), start_step, begun
        )
        key, _ = jax.random.split(state.key)
        state = self.deal(state, key, jnp.float32(self.first_angle_limit))
        return state, self.observe(state)

    def step(self, state: EnvState, action: jax.Array) -> tuple[EnvState, TimeStep]:
        """Advance by one control step (80 ms).

        Args:
            state: before it.
            action: [20] int32 bins.
        """
        moved, lost = self.act(state, action)
        return self.judge(state, moved, lost)

    def act(self, state: EnvState, action: jax.Array) -> tuple[EnvState, jax.Array]:
        """Move the world by an action [20] of bins, judging nothing.

        Returns:
            The state with new physics and effect memory, and [] int32: contacts or
            constraints lost to full buffers.
        """
        targets, memory = self.aim(state, action)
        physics, lost = self._engine.step(
            state.draw.parameters,
            state.physics,
            targets,
            memory.push,
            self._timesteps,
        )
        return state.replace(physics=physics, memory=memory), lost

    def aim(self, state: EnvState, action: jax.Array) -> tuple[jax.Array, EffectMemory]:
        """Actuator targets [20] [rad] for an action [20] of bins, and new memory."""
        joint_angles = state.physics.qpos[:NUM_JOINTS]
        value = actions.decode_bins(action, self._task.action_bins)
        value, memory = actions.smooth(value, state.memory, self._task.action_smoothing)
        value = jnp.clip(value, -1.0, 1.0)
        if self._task.locked_wrist:
            value = actions.lock_wrist(value, joint_angles, self._hand)
        return actions.joint_targets(value, joint_angles, self._hand), memory

    def judge(
        self, state: EnvState, moved: EnvState, lost: jax.Array
    ) -> tuple[EnvState, TimeStep]:
        """Reward and termination from true poses, next goal, observation.

        Args:
            state: before the action.
            moved: after it, as ``act`` returned it.
            lost: as ``act`` returned it.
        """
        key, goal_key = jax.random.split(state.key)
        # A world that blew up is ended; what is seen of it must stay finite.
        broken = ~_is_finite(moved.physics)
        physics = _where(broken, self._initial, moved.physics)

        angle = self._angle(physics, state.goal)
        met = ~broken & (angle < self._task.goal.tolerance)
        dropped = ~broken & self._is_below_hand(physics)
        reward = jnp.where(broken, 0.0, state.angle_to_goal - angle)
        reward += self._task.reward.success * met + self._task.reward.drop * dropped

        goals_met = state.goals_met + met
        steps_on_goal = jnp.where(met, 0, state.steps_on_goal + 1)
        completed = goals_met >= self._task.goal.count
        timed_out = steps_on_goal >= self._config.goal_steps
        terminated = dropped | broken
        truncated = (completed | timed_out) & ~terminated
        ended = terminated | truncated

        limit = goals.next_angle_limit(
            state.goal_angle_limit, met, ended & (goals_met == 0), self._task.goal
        )
        orientation = physics.qpos[OBJECT_ORIENTATION]
        new_goal = goals.draw_goal(goal_key, orientation, limit, self._task.goal)
        goal = jnp.where(met, new_goal, state.goal)
        next_state = moved.replace(
            physics=physics,
            goal=goal,
            goal_angle_limit=limit,
            angle_to_goal=self._angle(physics, goal),
            goals_met=goals_met,
            steps_on_goal=steps_on_goal,
            episode_steps=state.episode_steps + 1,
            key=key,
        )
        observation = self.observe(next_state)
        metrics = {
            "goals": met,
            "drops": dropped,
            "timeouts": timed_out & truncated,
            "completions": completed & truncated,
            "broken_worlds": broken,
            "lost_contacts": lost,
            "episodes": ended,
            "episode_goals": jnp.where(ended, goals_met, 0),
            "episode_steps": jnp.where(ended, next_state.episode_steps, 0),
            "goal_angle_limit": limit,
        }
        return next_state, TimeStep(
            observation=observation,
            last_observation=observation,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            metrics=jax.tree.map(lambda x: x.astype(jnp.float32), metrics),
        )

    def begin(self, key: jax.Array) -> EnvState:
        """The object above a cupped hand, in a random orientation."""
        key, orientation_key = jax.random.split(key)
        orientation = rotations.random(orientation_key)
        qpos = self._initial.qpos.at[OBJECT_ORIENTATION].set(orientation)
        return EnvState(
            physics=self._initial.replace(qpos=qpos),
            draw=EpisodeDraw(parameters=self._parameters),
            memory=_no_memory(),
            goal=jnp.array(rotations.IDENTITY),
            goal_angle_limit=jnp.zeros(()),
            angle_to_goal=jnp.zeros(()),
            goals_met=jnp.zeros((), jnp.int32),
            steps_on_goal=jnp.zeros((), jnp.int32),
            episode_steps=jnp.zeros((), jnp.int32),
            key=key,
        )

    def random_action(self, state: EnvState) -> jax.Array:
        """Bins [20] for a starting world, a function of its key and age."""
        key = jax.random.fold_in(state.key, state.episode_steps)
        return jax.random.randint(key, (NUM_ACTIONS,), 0, self._task.action_bins)

    def renew(self, moved: EnvState) -> EnvState:
        """Count a starting world's step, or begin it anew if the object was dropped."""
        lost = ~_is_finite(moved.physics) | self._is_below_hand(moved.physics)
        older = moved.replace(episode_steps=moved.episode_steps + 1)
        return _where(lost, self.begin(jax.random.split(moved.key)[1]), older)

    def is_started(self, state: EnvState) -> jax.Array:
        """[] bool: a starting world has had all its random actions."""
        return state.episode_steps >= self._task.start_steps

    def deal(self, started: EnvState, key: jax.Array, limit: jax.Array) -> EnvState:
        """Turn a started world into an episode with its own randomness and goal.

        Args:
            started: a world that ``is_started``; one may be dealt many times.
            key: random key of the episode.
            limit: [] the environment's largest turn to a 'near' goal [rad].
        """
        key, goal_key = jax.random.split(key)
        orientation = started.physics.qpos[OBJECT_ORIENTATION]
        goal = goals.draw_goal(goal_key, orientation, limit, self._task.goal)
        return started.replace(
            memory=_no_memory(),
            goal=goal,
            goal_angle_limit=limit,
            angle_to_goal=self._angle(started.physics, goal),
            episode_steps=jnp.zeros((), jnp.int32),
            key=key,
        )

    def observe(self, state: EnvState) -> Observation:
        """What the networks see in ``state``."""
        sensors = self.sense(state.physics)
        return observations.observe(
            sensors,
            sensors,
            state.goal,
            self._task.policy_inputs,
            self._config.physics.control_period,
        )

    def sense(self, physics: PhysicsState) -> Sensors:
        """True sensor values of a physics state."""
        joint_angles = physics.qpos[:NUM_JOINTS]
        tips = self._kinematics.fingertips(joint_angles)
        return Sensors(
            fingertips=(tips - self._frame_position) @ self._frame_rotation.T,
            object_position=self._frame_rotation
            @ (physics.qpos[OBJECT_POSITION] - self._frame_position),
            object_orientation=physics.qpos[OBJECT_ORIENTATION],
            joint_angles=joint_angles,
            joint_velocities=physics.qvel[:NUM_JOINTS],
            object_velocity=physics.qvel[NUM_JOINTS : NUM_JOINTS + 3],
            object_angular_velocity=physics.qvel[NUM_JOINTS + 3 :],
        )

    def _angle(self, physics: PhysicsState, goal: jax.Array) -> jax.Array:
        orientation = physics.qpos[OBJECT_ORIENTATION]
        return rotations.angle(observations.relative_orientation(goal, orientation))

    def _is_below_hand(self, physics: PhysicsState) -> jax.Array:
        return physics.qpos[OBJECT_POSITION][2] < self._task.drop_height


def make_env(config: Config) -> HandEnv:
    """Build the environment of a configuration."""
    hand = build_hand(config.hand, config.object, config.physics)
    return HandEnv(hand, make_engine(config.engine, hand, config.physics), config)


def _no_memory() -> EffectMemory:
    return EffectMemory(
        smoothed_action=jnp.zeros(NUM_ACTIONS),
        smoothing_weight=jnp.zeros(()),
        push=jnp.zeros(3),
    )


def _is_finite(tree) -> jax.Array:
    leaves = jax.tree.leaves(jax.tree.map(lambda x: jnp.isfinite(x).all(), tree))
    return jnp.all(jnp.stack(leaves))


def _where(condition, if_true, if_false):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)
