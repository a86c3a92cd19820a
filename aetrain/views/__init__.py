"""Pictures of what a model sees, codes and paints, and the TensorBoard logbook they go into."""
