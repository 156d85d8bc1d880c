"""A small generated world in which harm is a law over two facts, so that what alignment did can be counted exactly."""
