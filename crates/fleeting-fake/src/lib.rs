//! A small cloud in memory for tests and simulations.
