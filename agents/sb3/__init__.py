"""Gradient learners of Stable-Baselines3: PPO, DQN and MaskablePPO."""
