from ._errors import BadImageError as BadImageError
from ._errors import ImagesChangedError as ImagesChangedError
from ._errors import ImgstackError as ImgstackError
from ._errors import MemoryLimitError as MemoryLimitError
from ._errors import MixedStackError as MixedStackError
from ._errors import NonFiniteError as NonFiniteError
from ._errors import RankWarning as RankWarning
from ._errors import StoreError as StoreError
from .decomposition import Certificate as Certificate
from .decomposition import ImagePCA as ImagePCA
from .inspection import EigenimageDisplay as EigenimageDisplay
from .inspection import IntensityDisplay as IntensityDisplay
from .inspection import ReconstructionDisplay as ReconstructionDisplay
from .inspection import ScoresDisplay as ScoresDisplay
from .inspection import ScreeDisplay as ScreeDisplay
from .io import ImageStack as ImageStack
from .io import imread as imread
from .io import open_stack as open_stack
from .io import save_stack as save_stack
from .io import write_images as write_images
from .persistence import load_model as load_model
from .persistence import save_model as save_model
from .preprocessing import ImageFlattener as ImageFlattener
from .preprocessing import IntensityRescaler as IntensityRescaler
from .preprocessing import StackCenterer as StackCenterer

__version__: str
