"""The workshop of the generator: scripts that make the weights which the product ships."""
