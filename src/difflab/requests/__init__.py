"""What samples have to show: classes, captions, images, embeddings, by the number of the sample and a seed."""
