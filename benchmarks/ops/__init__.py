"""How fast is each operation against stock torch's?"""
