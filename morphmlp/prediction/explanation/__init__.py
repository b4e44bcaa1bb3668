"""What a trained network did with a file: where a class's evidence is, how branches were weighed, how moments mix."""
