"""What `siser infer` takes if nothing else is said."""

DEFAULT_MODEL = "emodb-five"  # of the models that come with the package
WINDOW = 4.0  # seconds, where a timeline is wanted
