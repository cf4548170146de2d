//! Where jobs run: the Executor trait, the instance executor, and the stages of a job.
