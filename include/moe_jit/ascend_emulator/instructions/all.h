// All instructions.
#pragma once
