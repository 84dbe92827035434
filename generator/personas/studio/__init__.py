"""The studio in which personas are made: casting, make-up, hair, wardrobe, light. Nothing at run time imports it."""
