"""The environment, written for ONE world: pure ``reset`` and ``step``."""

import jax
import jax.numpy as jnp

from mjx_dex import rotations, trees
from mjx_dex.config import Config
from mjx_dex.hand import Hand, build_hand
from mjx_dex.hand.kinematics import Kinematics
from mjx_dex.hand.model import NUM_JOINTS
from mjx_dex.physics import Engine, initial_state, make_engine
from mjx_dex.randomization import AdaptiveRanges, AdaptiveState, Randomization
from mjx_dex.randomization.observation import remember
from mjx_dex.randomization.occlusion import NailBoxes
from mjx_dex.randomization.physics import control_range
from mjx_dex.task import actions, goals, observations, rewards
from mjx_dex.types import (
    EffectMemory,
    EnvState,
    Observation,
    PhysicsState,
    Scene,
    Sensors,
    TimeStep,
)

NUM_ACTIONS = 20
OBJECT_POSITION = slice(NUM_JOINTS, NUM_JOINTS + 3)
OBJECT_ORIENTATION = slice(NUM_JOINTS + 3, NUM_JOINTS + 7)


class HandEnv:
    """Turn the object to one goal orientation after another (appendix C.1).

    ``step`` is ``act``, ``judge``, ``observe``; ``reset`` is ``begin``, random actions,
    ``deal``, ``observe``. The bank (``task/bank.py``) uses the parts, to step training
    worlds and starting worlds in one call of the engine.
    """

    def __init__(self, hand: Hand, engine: Engine, config: Config):
        self._engine = engine
        self._hand = hand
        self._config = config
        self._task = config.task
        self._kinematics = Kinematics(hand)
        initial = initial_state(hand.model)
        # A flat hand loses the block in 93 of 100 starts, a cupped one in 48.
        rest = jnp.asarray(hand.rest_angles, jnp.float32)
        self._initial = initial.replace(qpos=initial.qpos.at[:NUM_JOINTS].set(rest))
        self._menu = Randomization(
            hand, config.randomization, config.physics.control_period
        )
        self.adaptive = AdaptiveRanges(
            self._menu.enabled, config.randomization.adaptive
        )
        self._nail_boxes = NailBoxes(hand)
        self._fingertip_bodies = hand.model.site_bodyid[hand.fingertip_sites]
        self._frame_position = jnp.asarray(hand.frame_position, jnp.float32)
        self._frame_rotation = jnp.asarray(hand.frame_rotation, jnp.float32)
        self._base_markers = jnp.asarray(hand.base_markers, jnp.float32)

    @property
    def action_shape(self) -> tuple[int, int | None]:
        """Action coordinates, and bins of each; None where any number will do."""
        return NUM_ACTIONS, self._task.action_bins

    @property
    def first_angle_limit(self) -> float:
        """Largest turn to a 'near' goal before the curriculum widens it [rad]."""
        return self._task.goal.angles[1]

    @property
    def control_period(self) -> float:
        """Time between two control steps [s]."""
        return self._config.physics.control_period

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

        adaptive = self.adaptive.init()

        def start_step(state):
            moved, _ = self.act(state, self.random_action(state))
            again = self.begin(jax.random.split(state.key)[1], adaptive)
            older = moved.replace(episode_steps=moved.episode_steps + 1)
            return trees.where(self.is_lost(moved), again, older)

        begun = self.begin(key, adaptive)
        state = jax.lax.while_loop(
            lambda state: ~self.is_started(state), start_step, begun
        )
        key, _ = jax.random.split(state.key)
        limit = jnp.float32(self.first_angle_limit)
        return self.observe(self.deal(state, key, limit, adaptive))

    def step(self, state: EnvState, action: jax.Array) -> tuple[EnvState, TimeStep]:
        """Advance by one control step (80 ms).

        Args:
            state: before it.
            action: [20] int32 bins, or numbers where there are no bins.
        """
        moved, lost = self.act(state, action)
        state, time_step = self.judge(state, moved, lost)
        state, observation = self.observe(state)
        return state, time_step.replace(observation=observation)

    def act(self, state: EnvState, action: jax.Array) -> tuple[EnvState, jax.Array]:
        """Move the world by an action [20], judging nothing.

        Returns:
            The state with new physics and effect memory, and [] int32: contacts or
            constraints lost to full buffers.
        """
        arguments, memory = self.ask(state, action)
        physics, lost = self._engine.step(*arguments)
        return state.replace(physics=physics, memory=memory), lost

    def ask(self, state: EnvState, action: jax.Array) -> tuple[tuple, EffectMemory]:
        """What an action [20] asks of the engine, and new memory.

        Returns:
            The arguments of ``Engine.step``: parameters, physics state, actuator
            targets, force on the object, lengths of the physics steps.
        """
        config, draw = self._config.physics, state.draw
        targets, memory = self.aim(state, action)
        timestep, memory = self._menu.apply(
            "timestep_jitter", state.key, jnp.float32(config.timestep), draw, memory
        )
        mass = draw.parameters.body_mass[self._menu.nominal.object_body]
        force, memory = self._menu.apply(
            "random_push", state.key, memory.push, draw, memory, mass=mass
        )
        timesteps = jnp.full(config.substeps, timestep)
        return (draw.parameters, state.physics, targets, force, timesteps), memory

    def aim(self, state: EnvState, action: jax.Array) -> tuple[jax.Array, EffectMemory]:
        """Actuator targets [20] [rad] for an action [20], and new memory."""
        joint_angles = state.physics.qpos[:NUM_JOINTS]
        key, draw, memory = state.key, state.draw, state.memory
        value = actions.decode(action, self._task.action_bins)
        value, memory = actions.smooth(value, memory, self._config.smoothing_weight)
        # After smoothing, which would leave 73 % of it: Table 8's size is what acts.
        value, memory = self._menu.apply("action_noise", key, value, draw, memory)
        value, memory = self._menu.apply("action_delay", key, value, draw, memory)
        # Before backlash, whose input lies in [-1, 1] by definition (C.2).
        value = jnp.clip(value, -1.0, 1.0)
        value, memory = self._menu.apply("backlash", key, value, draw, memory)
        ctrl_range = control_range(draw.parameters, self._menu.nominal, self._hand)
        relative = self._task.action_targets == "relative"
        targets = actions.joint_targets(
            value, joint_angles, self._hand, ctrl_range, relative
        )
        if self._task.locked_wrist:
            targets = actions.lock_wrist(targets, ctrl_range)
        return targets, memory

    def judge(
        self, state: EnvState, moved: EnvState, lost: jax.Array
    ) -> tuple[EnvState, TimeStep]:
        """Reward and termination from true poses, and the next goal.

        ``last_observation`` is noiseless, ``observation`` is left to ``observe``.

        Args:
            state: before the action.
            moved: after it, as ``act`` returned it.
            lost: as ``act`` returned it.
        """
        key, goal_key = jax.random.split(state.key)
        # An environment that blew up is ended; what is seen of it must stay finite. Not
        # every engine returns NaN for NaN: MuJoCo Warp normalizes a quaternion of it.
        broken = ~trees.is_finite((state.physics, moved.physics))
        physics = trees.where(broken, self._initial, moved.physics)

        angle = self._angle(physics, state.goal)
        met = ~broken & (angle < self._task.goal.tolerance)
        dropped = ~broken & self._is_below_hand(physics)
        goals_met = state.goals_met + met
        steps_on_goal = jnp.where(met, 0, state.steps_on_goal + 1)
        completed = goals_met >= self._task.goal.count
        timed_out = steps_on_goal >= self._config.goal_steps
        terminated = dropped | broken
        truncated = (completed | timed_out) & ~terminated
        ended = terminated | truncated
        reward = rewards.reward(
            self._task.reward,
            progress=state.angle_to_goal - angle,
            met=met,
            dropped=dropped,
            timed_out=timed_out & truncated,
            angle=angle,
            distance=jnp.linalg.norm(
                (physics.qpos - self._initial.qpos)[OBJECT_POSITION][:2]
            ),
            action=actions.smoothed(moved.memory),
        )

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
        true_sensors = self.sense(self.scene(next_state))
        last_observation = self._networks_see(true_sensors, true_sensors, goal)
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
            observation=None,
            last_observation=last_observation,
            reward=jnp.where(broken, 0.0, reward),
            terminated=terminated,
            truncated=truncated,
            metrics=jax.tree.map(lambda x: x.astype(jnp.float32), metrics),
        )

    def begin(self, key: jax.Array, adaptive: AdaptiveState) -> EnvState:
        """The object above a cupped hand, in a random orientation and drawn physics.

        The start is made with this draw; its episodes get their own, see ``deal``.
        """
        key, orientation_key, probe_key, draw_key = jax.random.split(key, 4)
        orientation = rotations.random(orientation_key)
        qpos = self._initial.qpos.at[OBJECT_ORIENTATION].set(orientation)
        probe = self.adaptive.start_probe(probe_key)
        ranges = self.adaptive.ranges(adaptive, probe)
        return EnvState(
            physics=self._initial.replace(qpos=qpos),
            draw=self._menu.draw_physics(draw_key, ranges),
            probe=probe,
            memory=EffectMemory.empty(),
            goal=jnp.array(rotations.IDENTITY),
            goal_angle_limit=jnp.zeros(()),
            angle_to_goal=jnp.zeros(()),
            goals_met=jnp.zeros((), jnp.int32),
            steps_on_goal=jnp.zeros((), jnp.int32),
            episode_steps=jnp.zeros((), jnp.int32),
            key=key,
        )

    def random_action(self, state: EnvState) -> jax.Array:
        """An action [20] for a starting world, a function of its key and age."""
        key = jax.random.fold_in(state.key, state.episode_steps)
        return actions.random_action(key, (NUM_ACTIONS,), self._task.action_bins)

    def is_lost(self, moved: EnvState) -> jax.Array:
        """[] bool: a starting world dropped its object or blew up."""
        return ~trees.is_finite(moved.physics) | self._is_below_hand(moved.physics)

    def is_started(self, state: EnvState) -> jax.Array:
        """[] bool: a starting world has had all its random actions."""
        return state.episode_steps >= self._task.start_steps

    def deal(
        self,
        started: EnvState,
        key: jax.Array,
        limit: jax.Array,
        adaptive: AdaptiveState,
    ) -> EnvState:
        """Turn a started world into an episode with its own randomness and goal.

        Args:
            started: an environment that ``is_started``; one may be dealt many times.
                Its state stays, and the object's shape and size; everything else is
                drawn anew, physics included (Table 1).
            key: random key of the episode.
            limit: [] the environment's largest turn to a 'near' goal [rad].
            adaptive: present bounds of randomization.
        """
        key, goal_key, draw_key = jax.random.split(key, 3)
        orientation = started.physics.qpos[OBJECT_ORIENTATION]
        goal = goals.draw_goal(goal_key, orientation, limit, self._task.goal)
        draw_key, probe_key = jax.random.split(draw_key)
        probe = self.adaptive.episode_probe(probe_key, started.probe)
        ranges = self.adaptive.ranges(adaptive, probe)
        draw = self._menu.draw_physics(draw_key, ranges, started.draw)
        return started.replace(
            draw=self._menu.draw_signals(draw_key, draw, ranges),
            probe=probe,
            memory=EffectMemory.empty(),
            goal=goal,
            goal_angle_limit=limit,
            angle_to_goal=self._angle(started.physics, goal),
            episode_steps=jnp.zeros((), jnp.int32),
            key=key,
        )

    def observe(self, state: EnvState) -> tuple[EnvState, Observation]:
        """What the networks see in ``state``, and the state with that remembered."""
        key, draw, memory = state.key, state.draw, state.memory
        scene = self.scene(state)
        true = self.sense(scene)
        turns = jax.vmap(rotations.to_matrix)(
            scene.body_quaternion[self._fingertip_bodies]
        )
        apply = self._menu.apply
        noisy, memory = apply(
            "marker_placement",
            key,
            true,
            draw,
            memory,
            fingertip_rotations=self._frame_rotation @ turns,
            base_markers=self._base_markers,
        )
        noisy, memory = apply("correlated_noise", key, noisy, draw, memory)
        noisy, memory = apply("uncorrelated_noise", key, noisy, draw, memory)
        depths = self._nail_boxes.depths(scene)
        noisy, memory = apply(
            "marker_occlusion", key, noisy, draw, memory, depths=depths
        )
        noisy, memory = apply("marker_dropout", key, noisy, draw, memory)
        noisy, memory = apply("object_tracking_loss", key, noisy, draw, memory)
        state = state.replace(memory=remember(noisy, memory))
        return state, self._networks_see(noisy, true, state.goal)

    def observe_with_pose(
        self, state: EnvState, position: jax.Array, orientation: jax.Array
    ) -> Observation:
        """What the networks see in a state that was observed, with another pose.

        Args:
            state: as ``observe`` returned it.
            position: [3] of the object, as ``Sensors`` has it [m].
            orientation: [4] of the object.
        """
        true = self.sense(self.scene(state))
        read = true.replace(
            fingertips=state.memory.fingertip_reading,
            object_position=position,
            object_orientation=orientation,
        )
        return self._networks_see(read, true, state.goal)

    def scene(self, state: EnvState) -> Scene:
        """Where everything truly is in a state."""
        physics = state.physics
        positions, quaternions = self._kinematics.body_poses(physics.qpos[:NUM_JOINTS])
        return Scene(
            body_position=positions,
            body_quaternion=quaternions,
            geom_size=state.draw.parameters.geom_size,
            physics=physics,
        )

    def sense(self, scene: Scene) -> Sensors:
        """True sensor values."""
        qpos, qvel = scene.physics.qpos, scene.physics.qvel
        tips = self._kinematics.fingertips(scene.body_position, scene.body_quaternion)
        return Sensors(
            fingertips=(tips - self._frame_position) @ self._frame_rotation.T,
            object_position=self._frame_rotation
            @ (qpos[OBJECT_POSITION] - self._frame_position),
            object_orientation=qpos[OBJECT_ORIENTATION],
            joint_angles=qpos[:NUM_JOINTS],
            joint_velocities=qvel[:NUM_JOINTS],
            object_velocity=qvel[NUM_JOINTS : NUM_JOINTS + 3],
            object_angular_velocity=qvel[NUM_JOINTS + 3 :],
        )

    def _networks_see(self, noisy: Sensors, true: Sensors, goal) -> Observation:
        return observations.observe(
            noisy,
            true,
            goal,
            self._task.policy_inputs,
            self._config.physics.control_period,
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
