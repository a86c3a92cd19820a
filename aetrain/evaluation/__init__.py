"""The one ruler that every family is measured with."""
