"""Online knowledge distillation: networks that train together from scratch and teach each other."""
