//! A job's log on its way to GitLab: masked, stamped, spooled on disk, patched, finished.
