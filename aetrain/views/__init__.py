"""Views: pictures of reconstructions, codes and hidden units, and the TensorBoard event file that stores them."""
