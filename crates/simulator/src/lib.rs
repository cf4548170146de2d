//! Replays a trace of jobs through the scaler in virtual time.
