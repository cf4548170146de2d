//! The whole way on one machine: a GitLab stand-in, local instances and a live picture.
