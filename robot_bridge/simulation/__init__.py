"""A hand to rehearse with: MuJoCo's C engine behind the real hand's interfaces."""
