//! What one job does, from its script to GitLab's page.

mod results;
