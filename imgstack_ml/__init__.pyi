from . import datasets as datasets
from .decomposition import Certificate as Certificate
from .decomposition import ComponentFilter as ComponentFilter
from .decomposition import ImagePCA as ImagePCA
from .decomposition import Plan as Plan
from .errors import BadImageError as BadImageError
from .errors import ClusterLostError as ClusterLostError
from .errors import ImageError as ImageError
from .errors import ImageFunctionError as ImageFunctionError
from .errors import ImagesChangedError as ImagesChangedError
from .errors import ImgstackError as ImgstackError
from .errors import MemoryLimitError as MemoryLimitError
from .errors import MixedStackError as MixedStackError
from .errors import NonFiniteError as NonFiniteError
from .errors import RankWarning as RankWarning
from .errors import StoreError as StoreError
from .features import ChannelStatistics as ChannelStatistics
from .features import HOGFeatures as HOGFeatures
from .features import ImageFeatureUnion as ImageFeatureUnion
from .features import ImageHistogram as ImageHistogram
from .features import TextureFeatures as TextureFeatures
from .inspection import EigenimageDisplay as EigenimageDisplay
from .inspection import IntensityDisplay as IntensityDisplay
from .inspection import ReconstructionDisplay as ReconstructionDisplay
from .inspection import ScoresDisplay as ScoresDisplay
from .inspection import ScreeDisplay as ScreeDisplay
from .io import ImageStack as ImageStack
from .io import StackSummary as StackSummary
from .io import imread as imread
from .io import open_stack as open_stack
from .io import save_stack as save_stack
from .io import write_images as write_images
from .passes.fit_together import fit_together as fit_together
from .persistence import load_model as load_model
from .persistence import save_model as save_model
from .preprocessing import ImageFlattener as ImageFlattener
from .preprocessing import ImageMap as ImageMap
from .preprocessing import IntensityRescaler as IntensityRescaler
from .preprocessing import StackCenterer as StackCenterer
from .report import Alert as Alert
from .report import Report as Report
from .report import generate_report as generate_report

__version__: str

ImageFeatures = ImageFeatureUnion  # its name before 0.2, which warns
