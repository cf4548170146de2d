//! Instance groups that are AWS Auto Scaling groups.
