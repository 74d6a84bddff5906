"""How programs run: precision, compiling, devices, deadlines, files; nothing here knows of inference."""
