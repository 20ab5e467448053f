from .images import input_bounds as input_bounds
from .methods import bim as bim
from .methods import fgsm as fgsm
from .methods import pgd as pgd
from .methods import random_noise as random_noise
from .settings import AttackSettings as AttackSettings
from .square import square_attack as square_attack
from .suite import attack_networks as attack_networks
