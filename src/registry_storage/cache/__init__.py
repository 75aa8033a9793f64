"""What is kept on disk under the root directory."""
