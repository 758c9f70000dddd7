"""Learning to schedule: one training for every environment and learner (`agents.training`)."""
