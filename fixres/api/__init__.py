"""What `import fixres` offers. Only this package and the command lines join data (`pipelines`) and learning."""
