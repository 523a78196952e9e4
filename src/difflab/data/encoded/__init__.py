"""Fields that an encoder computes of every sample of a data set."""
