// A CGI program (RFC 3875): what is known of the request is in the environment,
// its body is on standard input, and the answer goes to standard output.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int hello(void) {
    fputs("Content-Type: text/plain\r\n\r\nHello from C!\n", stdout);
    return EXIT_SUCCESS;
}

static int echo(void) {
    char buffer[16 * 1024];
    ssize_t length;

    fputs("Content-Type: application/octet-stream\r\n\r\n", stdout);
    // From here on without stdio, whose buffer would hold back what has arrived.
    fflush(stdout);
    while ((length = read(STDIN_FILENO, buffer, sizeof buffer)) > 0) {
        for (ssize_t sent = 0, n; sent < length; sent += n) {
            n = write(STDOUT_FILENO, buffer + sent, (size_t)(length - sent));
            if (n < 0) return EXIT_FAILURE;
        }
    }
    return length < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int refuse(const char *status) {
    printf("Status: %s\r\nContent-Type: text/plain\r\n\r\n%s\n", status, status);
    return EXIT_SUCCESS;
}

int main(void) {
    const char *method = variable("REQUEST_METHOD");
    const char *path = variable("PATH_INFO");

    if (strcmp(path, "/echo") == 0) {
        return strcmp(method, "POST") == 0 ? echo() : refuse("405 Method Not Allowed");
    }
    if (strcmp(path, "/") == 0 || *path == '\0') return hello();
    return refuse("404 Not Found");
}
