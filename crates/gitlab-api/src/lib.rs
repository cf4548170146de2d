//! GitLab's runner API: requests, responses and a small client.
