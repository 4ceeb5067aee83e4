"""The Bookshop: four small services to mesh. They know nothing of the mesh they run in."""
