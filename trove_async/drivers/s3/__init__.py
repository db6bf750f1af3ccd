"""Objects in S3, or in a service that speaks as S3 does."""
