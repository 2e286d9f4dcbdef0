"""Many trainings of one question: a search over recipes, arms over seeds."""
