"""safestep inside other frameworks: one package or file per framework, imported by name, never by `import safestep`."""
