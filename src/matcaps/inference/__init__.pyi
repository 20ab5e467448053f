from .prediction import Predictions as Predictions
from .prediction import find_images as find_images
from .prediction import predict_files as predict_files
from .saved import SavedNetwork as SavedNetwork
from .saved import evaluate_saved as evaluate_saved
from .saved import load_saved_data as load_saved_data
from .saved import open_saved as open_saved
