// The floor of the start-up benchmark: what a process costs that writes its byte and does nothing else.

#include <unistd.h>

int main(void)
{
    return write(1, "!", 1) != 1;
}
