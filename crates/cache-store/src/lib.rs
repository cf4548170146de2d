//! Where caches of jobs live: S3, Google Cloud Storage, Azure Blob; signs the addresses that a job gets.
